"""The Programs that come along with the agents, see `fluid.shipped`."""

from DeepQNetwork.agent import AgentFlags
from DeepQNetwork.network import act_program
from DeepQNetwork.opening import SHIPPED, open_agent
from fluid.shipped import Recipe


def recipes() -> list[Recipe]:
    """That of infer.py without flags."""
    agent = open_agent(AgentFlags(pretrained_model=SHIPPED)).facts
    return [Recipe("act", agent.made_of, lambda: act_program(agent))]
