"""From stored bytes to the JSON that the API server gives for them."""
