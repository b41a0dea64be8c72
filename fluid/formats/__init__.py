"""How weights are stored: Fluid's records and inference models of 2018-2020, `.pdparams`, archives of any of them."""
