"""Exports: versions, manifests, verification, publication and upload."""
