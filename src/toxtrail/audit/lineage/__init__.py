"""What a reference means, and everything that a result was made from."""
