"""What is out of date, unpublished or damaged."""
