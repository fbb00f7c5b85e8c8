"""Text as a model sees it: documents from files, words and their forms, one forward pass of a
transformer. May import from runs."""
