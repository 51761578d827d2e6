"""Statistical functions: arrays in, arrays out. No function reads a file, a clock or a config."""
