"""What is available by name: algorithms, datasets, featurizers and other things."""
