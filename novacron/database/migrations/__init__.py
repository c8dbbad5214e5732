"""The database's schema as steps. Imported by Alembic alone, and only when a step is pending."""
