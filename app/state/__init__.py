"""service.db: conversations with the provenance of their answers, and what was spent. Only here is SQLAlchemy imported."""
