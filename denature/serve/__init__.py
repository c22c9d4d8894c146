"""The victim's side: a model behind a wire, with budgets, and what its answers show."""
