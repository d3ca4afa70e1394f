"""Using trained models: loading them, predicting classes of images, exporting weights."""
