"""What one asks of a trained model."""
