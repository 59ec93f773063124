"""Fine-tuning: a model and data of a task become a model that does the task."""
