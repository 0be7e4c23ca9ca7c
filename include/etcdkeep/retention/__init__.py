"""Which backup sets are kept, and how the others are removed so that the last good ones are never among them."""
