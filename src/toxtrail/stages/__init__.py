"""The stages, in the order of the data: read files, call one pure function, write files."""
