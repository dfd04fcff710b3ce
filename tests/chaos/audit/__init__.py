"""The auditor's own package. It imports nothing of Stayline: it reads what others saw, and judges."""
