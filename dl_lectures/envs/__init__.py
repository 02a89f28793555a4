"""Pure environments: board games first."""
