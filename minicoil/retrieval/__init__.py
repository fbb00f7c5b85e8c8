"""Search: scoring, collections, engines, measures and rivals. May import from stages and all below."""
