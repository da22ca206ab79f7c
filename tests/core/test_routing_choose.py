"""Which node answers, because."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgfleet.facts.addresses import NodeAddress
from pgfleet.facts.topology import MemberSeen, ShardTopology
from pgfleet.names import NodeName
from pgfleet.routing.choose import LAG_LIMIT, Why, choose_read, choose_write, refused
from pgfleet.routing.consistency import Mark, Proofs
from pgfleet.routing.table import NodeRoute, RoutingTable, ShardRoute, route_shard

REGIONS = ["us-east", "us-west", "eu-west", "apac"]


def node(region: str, number: int = 1, **more: object) -> NodeRoute:
    return NodeRoute(NodeName("stem", region, number), "127.0.0.1", 21000 + number, **more)  # type: ignore[arg-type]


def shard(*replicas: NodeRoute) -> ShardRoute:
    return ShardRoute("stem", node("us-east"), replicas)


def read(route: ShardRoute, region: str | None = "eu-west", turn: int = 0, **more: object) -> str | None:
    choice = choose_read(route, region=region, turn=turn, **more)  # type: ignore[arg-type]
    return choice.node.name.member if choice else None


def test_a_replica_of_the_same_region_comes_first() -> None:
    assert read(shard(node("us-west", rtt=0.001), node("eu-west", rtt=0.9))) == "eu-west-1"


def test_then_the_nearest_by_measured_round_trip() -> None:
    assert read(shard(node("us-west", rtt=0.080), node("apac", rtt=0.200), node("us-east", 2))) == "us-west-1"


def test_replicas_equally_near_take_turns() -> None:
    route = shard(node("eu-west", 1), node("eu-west", 2), node("us-west"))
    assert [read(route, turn=turn) for turn in range(4)] == ["eu-west-1", "eu-west-2"] * 2


def test_of_replicas_equally_near_the_shorter_line_is_joined() -> None:
    route = shard(node("eu-west", 1), node("eu-west", 2), node("us-west"))
    lines = {"eu-west-1": 3, "eu-west-2": 1, "us-west-1": 0}
    assert {read(route, turn=turn, line=lambda name: lines[name.member]) for turn in range(4)} == {"eu-west-2"}


def test_without_replicas_the_primary_reads() -> None:
    choice = choose_read(shard(node("eu-west", silent=True), node("us-west", serves=False)), region="eu-west", turn=0)
    assert choice is not None
    assert choice.why is Why.NO_REPLICA
    assert choice.node.region == "us-east"


def test_a_replica_that_lags_is_not_read() -> None:
    route = shard(node("eu-west", lag=LAG_LIMIT + 1), node("us-west", lag=65536))
    assert read(route) == "us-west-1"
    assert refused(route, route.replicas[0]) == "16 MB behind, the limit is 16 MB"
    assert refused(route, route.replicas[1]) is None


def test_a_write_waits_while_the_primary_hands_over() -> None:
    assert choose_write(shard()) is not None
    assert choose_write(ShardRoute("stem", node("us-east"), draining=True)) is None
    assert choose_write(ShardRoute("stem")) is None


def test_because_is_a_sentence() -> None:
    choice = choose_read(shard(node("eu-west", 1, lag=0), node("eu-west", 2, lag=0)), region="eu-west", turn=0)
    assert choice is not None
    assert choice.because == "a replica in the caller's region, one of 2 taking turns, at most 0 B behind"


nodes = st.builds(
    NodeRoute,
    st.builds(NodeName, st.just("stem"), st.sampled_from(REGIONS), st.integers(1, 3)),
    st.just("127.0.0.1"),
    st.integers(1, 65535),
    lag=st.none() | st.integers(0, 2 * LAG_LIMIT),
    rtt=st.none() | st.floats(0, 1),
    serves=st.booleans(),
    silent=st.booleans(),
)


@given(
    st.lists(nodes, unique_by=lambda n: n.name), st.none() | nodes, st.sampled_from([None, *REGIONS]), st.integers(0),
    st.sets(st.builds(NodeName, st.just("stem"), st.sampled_from(REGIONS), st.integers(1, 3))),
)  # fmt: skip
def test_a_choice_is_one_that_may_be_read(
    replicas: list[NodeRoute], primary: NodeRoute | None, region: str | None, turn: int, avoid: set[NodeName]
) -> None:
    route = ShardRoute("stem", primary, tuple(replicas))
    choice = choose_read(route, region=region, turn=turn, avoid=avoid)
    fit = [r for r in replicas if refused(route, r) is None and r.name not in avoid]
    if choice is None:
        assert not fit
        assert primary is None or primary.silent or primary.name in avoid
    elif choice.why is Why.NO_REPLICA:
        assert choice.node is primary
        assert not fit
    else:
        assert choice.node in fit
        assert region not in {r.region for r in fit} or choice.node.region == region


def test_the_table_is_swapped_only_for_a_difference() -> None:
    first = RoutingTable().with_shard(shard(node("eu-west")))
    assert first.version == 1
    assert first.with_shard(shard(node("eu-west"))) is first
    assert first.with_shard(shard()).version == 2


def test_the_locks_holder_is_neither_replica_nor_primary_before_it_takes_writes() -> None:
    names = [NodeName("stem", region, 1) for region in REGIONS[:3]]
    book = [NodeAddress(n, "voter", "127.0.0.1", 21000, 21001) for n in names]
    members = {n: MemberSeen(n, "replica", "running", 10) for n in names[1:]}
    seen = ShardTopology("stem", names[1], members, position=20)
    route = route_shard("stem", book, seen, primary=None, because="us-west-1 is being promoted")
    assert route.primary is None
    assert {r.name for r in route.replicas} == {names[0], names[2]}
    assert [r.serves for r in route.replicas] == [False, True]
    promoted = route_shard("stem", book, seen, primary=names[1], because="it said so")
    assert promoted.primary is not None
    assert promoted.primary.name == names[1]


def test_a_replica_is_fresh_only_by_proof() -> None:
    a, b = NodeName("stem", "us-west", 1), NodeName("stem", "eu-west", 1)
    proofs = Proofs(NodeName("stem", "us-east", 1)).marked(Mark(100, 10.0)).marked(Mark(200, 11.0))
    proofs = proofs.replayed(a, 150).replayed(b, 99)
    assert proofs.fresh(1.5, 11.0) == {a}
    assert proofs.fresh(0.5, 11.0) == frozenset()
    assert proofs.replayed(b, 200).fresh(0.5, 11.0) == {b}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=40))
def test_proven_staleness_is_never_less_than_the_truth(story: list[tuple[bool, int]]) -> None:
    """Time is the index; the primary writes one byte a second; the replica is seen now and then, somewhere behind."""
    replica = NodeName("stem", "us-west", 1)
    proofs, best = Proofs(NodeName("stem", "us-east", 1)), 0
    for now, (mark, behind) in enumerate(story):
        if mark:
            proofs = proofs.marked(Mark(now, float(now)))
        else:
            best = max(best, now - behind)
            proofs = proofs.replayed(replica, best)
        for limit in (0, 1, 5):
            if replica in proofs.fresh(limit, now):
                assert now - best <= limit
