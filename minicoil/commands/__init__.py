"""The command line, and the chain that runs all stages. The top floor: may import from every other."""
