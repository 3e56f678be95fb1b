"""Topics: their quality of service with its overrides by parameters, those that stand beside another, and why nothing arrives on one.

Every topic takes ``qos_overrides.<topic>.<subscription|publisher>.<history|depth|reliability|durability>`` from a parameter file.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from rclpy.qos import QoSDurabilityPolicy, QoSPolicyKind, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

RESULTS = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.RELIABLE)  # RViz asks for reliable
LATCHED = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
NEWEST = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


def newest(reliability: str) -> QoSProfile:
    """Depth 1, "best_effort" or "reliable"."""
    return QoSProfile(depth=1, reliability=QoSReliabilityPolicy[reliability.upper()])


def overridable(profile: QoSProfile) -> dict:
    """Arguments of create_publisher and create_subscription: a copy of ``profile``, which rclpy changes in place, and what may be overridden."""
    return {"qos_profile": copy.copy(profile), "qos_overriding_options": QoSOverridingOptions(OVERRIDABLE)}


def quiet_publisher(node, message_type, topic: str, profile: QoSProfile):
    """A publisher that comes and goes while the executor of ``node`` runs: without events, which the executor would wait for."""
    return node.create_publisher(message_type, topic, copy.copy(profile), event_callbacks=PublisherEventCallbacks(use_default_callbacks=False))


def beside(node, topic: str, transport: str) -> str:
    """``topic``/``transport`` where it is remapped itself, otherwise beside wherever ``topic`` is, as image_transport does."""
    remapped = node.resolve_topic_name(f"{topic}/{transport}")
    if remapped != node.resolve_topic_name(f"{topic}/{transport}", only_expand=True):
        return remapped
    return f"{node.resolve_topic_name(topic)}/{transport}"


def in_words(profile: QoSProfile) -> str:
    """Reliability and durability, such as "best_effort, volatile"."""
    return f"{profile.reliability.name.lower()}, {profile.durability.name.lower()}"


def incompatible(offered: QoSProfile, requested: QoSProfile) -> list[str]:
    """Names of the policies by which a publisher that offers less than is requested is not heard."""
    names = []
    if offered.reliability == QoSReliabilityPolicy.BEST_EFFORT and requested.reliability == QoSReliabilityPolicy.RELIABLE:
        names.append("reliability")
    if offered.durability == QoSDurabilityPolicy.VOLATILE and requested.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL:
        names.append("durability")
    return names


def why_silent(publishers: list, requested: QoSProfile, topic: str, message_type: str, elsewhere: list[str]) -> str:
    """Why nothing arrives on ``topic``, in words, and what to do.

    ``publishers``: its TopicEndpointInfo; ``message_type``: such as "sensor_msgs/msg/Image"; ``elsewhere``: topics of this type that are
    published.
    """
    if not publishers:
        others = f"; images are published on {', '.join(elsewhere)}: remap {topic}" if elsewhere else ""
        return f"nobody publishes {topic}{others}"
    ours = [publisher for publisher in publishers if publisher.topic_type == message_type]
    if not ours:
        kinds = ", ".join(sorted({publisher.topic_type for publisher in publishers}))
        return f"{topic} is published as {kinds}, expected {message_type}: remap it, or set image_transport"
    offered = "; ".join(sorted({in_words(publisher.qos_profile) + _by(publisher.node_name) for publisher in ours}))
    policies = sorted({name for publisher in ours for name in incompatible(publisher.qos_profile, requested)})
    if policies:
        return (f"{topic} offers {offered}, requested is {in_words(requested)}: the {' and '.join(policies)} cannot be met; set image_reliability or "
                f"qos_overrides.{topic}.subscription.{policies[0]}")  # fmt: skip
    return (f"{topic} has publishers, but nothing arrives (offered: {offered}; requested: {in_words(requested)}): does the camera run, and has its "
            "driver the Fast DDS profile config/fastdds.xml?")  # fmt: skip


def _by(node_name: str) -> str:
    return "" if node_name.startswith("_") else f" by {node_name}"  # rmw names unknown nodes and hidden ones so


class SilenceWatch:
    """Subscribes a topic and notes when something arrived last. ``reason()`` asks the graph why it is silent.

    The middleware's own report of incompatible quality of service goes to ``warn`` at once, with the topic, the offered and the requested.
    """

    def __init__(self, node, message_type, topic: str, callback: Callable, profile: QoSProfile, warn: Callable[[str], None]):
        self.topic = node.resolve_topic_name(topic)
        self._node, self._warn = node, warn
        package, _, name = message_type.__module__.partition(".msg.")
        self._type = f"{package}/msg/{message_type.__name__}"
        arguments = overridable(profile)
        self.profile: QoSProfile = arguments["qos_profile"]  # with what was overridden
        self._subscription = node.create_subscription(
            message_type, topic, callback, event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible), **arguments
        )

    def reason(self) -> str:
        """Why nothing arrives, in words, and what to do."""
        node = self._node
        own = {name for name, _ in node.get_publisher_names_and_types_by_node(node.get_name(), node.get_namespace())}
        elsewhere = [name for name, types in node.get_topic_names_and_types() if self._type in types and name not in own | {self.topic}
                     and node.count_publishers(name)]  # fmt: skip
        return why_silent(self.publishers(), self.profile, self.topic, self._type, elsewhere)

    def publishers(self) -> list:
        """TopicEndpointInfo of everybody who publishes the topic."""
        return self._node.get_publishers_info_by_topic(self.topic)

    def destroy(self) -> None:
        self._node.destroy_subscription(self._subscription)

    def _on_incompatible(self, event) -> None:
        self._warn(f"incompatible quality of service: {self.reason()}")
