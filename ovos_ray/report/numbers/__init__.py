"""What a study says in numbers: rows, differences, and how sure they are."""
