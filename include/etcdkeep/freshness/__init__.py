"""How a cluster's backups are, measured from its repository alone: no scheduler needs to run for an alarm to ring."""
