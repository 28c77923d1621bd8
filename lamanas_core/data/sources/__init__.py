"""Where images come from: made-up characters, digits, typefaces, Omniglot."""
