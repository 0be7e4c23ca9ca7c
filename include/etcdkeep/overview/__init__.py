"""What a person wants to see of backups, as data for a page: made from what `check`, the repository and the records say, judged nowhere again."""
