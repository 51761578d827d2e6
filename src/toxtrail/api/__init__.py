"""The functions for notebooks, which the commands of the same names call too."""
