"""The report as one page: HTML that needs nothing but itself (`collect_results --html`)."""
