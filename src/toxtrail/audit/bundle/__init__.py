"""Results that travel: bundles, signatures, descriptions for archives."""
