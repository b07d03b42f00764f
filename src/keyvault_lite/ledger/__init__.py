"""FACTS AND EVIDENCE: what is stored, and the one way to change it. The only importer of SQLAlchemy and drivers."""
