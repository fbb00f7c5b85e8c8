"""What a reader looks at: safe pages, a word's senses, the atlas, the explorer, a run's report. May
import from retrieval and all below."""
