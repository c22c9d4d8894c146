"""The victim's side: a model behind a wire, with query budgets and limits on its answers."""
