"""The stages that make a model, one module each, in the order of their notebooks. May import from
learning, serving, text and runs."""
