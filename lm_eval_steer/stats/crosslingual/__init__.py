"""Cross-lingual statistics: the same items in several languages, and vectors of one language tested in another."""
