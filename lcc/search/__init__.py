"""The search for a layer plan: a user of the public API."""
