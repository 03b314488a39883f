"""What a model is: the smallest rule that says what its policy says."""
