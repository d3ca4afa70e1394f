"""Report sections that compare methods: paired tests, control experiment, published results, rankings."""
