"""Looking inside a trained encoder; everything reads its `trace`."""
