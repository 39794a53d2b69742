"""What all gradient optimizers share: the contract of a rule, the loop over parameters, states."""
