"""Speed side by side with peers; each module prints ratios as JSON lines."""
