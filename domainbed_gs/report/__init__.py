"""Sections of the report that compare methods: paired tests, controls, rankings, published results."""
