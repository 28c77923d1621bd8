"""Sources of images: synthetic glyphs, digits, typefaces and Omniglot."""
