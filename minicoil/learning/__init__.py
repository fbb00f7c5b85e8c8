"""What an encoder learns: one module an objective, as batched linear algebra. May import from serving,
text and runs."""
