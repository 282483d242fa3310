"""Cross-lingual: items translated segment by segment, and every translation checked."""
