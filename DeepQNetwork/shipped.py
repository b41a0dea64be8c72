"""The Programs that come along with the agents, see `fluid.shipped`."""

from DeepQNetwork.agent import Agent, AgentFlags
from DeepQNetwork.network import act_program
from DeepQNetwork.opening import SHIPPED, open_agent
from fluid.shipped import Recipe


def recipes() -> list[Recipe]:
    """Those of infer.py with the agents that this project trained."""
    return [recipe(open_agent(AgentFlags(pretrained_model=name)).facts) for name in SHIPPED.values()]


def recipe(agent: Agent) -> Recipe:
    """Of the Program that acts."""
    return Recipe("act", agent.made_of, lambda: act_program(agent))
