"""The mathematics: arrays in, arrays out. Nothing here reads a file, a clock or a config."""
