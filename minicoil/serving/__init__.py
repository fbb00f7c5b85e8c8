"""A finished model: `MiniCOIL`, its sparse vectors, long texts, explanations, the sentence-transformers form. May import from text and runs, and needs no torch until a function asks for it."""
