"""Results of a sweep: accuracies by selection method, and the tables, reports and pages that show them."""
