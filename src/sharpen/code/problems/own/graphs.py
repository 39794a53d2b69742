"""Graphs, given as lists of edges, and grids."""

from __future__ import annotations

import heapq
import random
from collections import deque
from itertools import combinations

LEVELS = {
    "fewest_steps": (6, 30, 100, 250),
    "count_components": (6, 40, 150, 500),
    "task_order": (6, 30, 100, 250),
    "shortest_distances": (6, 30, 100, 250),
    "count_triangles": (6, 15, 28, 45),
    "reachable_from": (6, 40, 150, 400),
    "count_islands": (4, 10, 20, 34),
    "degrees": (6, 40, 150, 500),
    "common_friends": (6, 20, 50, 110),
}

Edges = list[tuple[int, int]]


def _edges(n: int, count: int, rng: random.Random) -> Edges:
    return [(rng.randrange(n), rng.randrange(n)) for _ in range(count)]


def fewest_steps(n: int, edges: Edges, start: int, goal: int) -> int:
    """Return the least number of edges, walked either way, from start to goal of n nodes, or -1."""
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    steps = [-1] * n
    steps[start] = 0
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        if node == goal:
            break
        for other in neighbours[node]:
            if steps[other] < 0:
                steps[other] = steps[node] + 1
                waiting.append(other)
    return steps[goal]


def fewest_steps_slow(n: int, edges: Edges, start: int, goal: int) -> int:
    queue = [(start, 0)]
    visited = [start]
    while queue:
        node, steps = queue.pop(0)
        if node == goal:
            return steps
        for a, b in edges:
            if a == node and b not in visited:
                visited.append(b)
                queue.append((b, steps + 1))
            if b == node and a not in visited:
                visited.append(a)
                queue.append((a, steps + 1))
    return -1


def fewest_steps_inputs(size: int, rng: random.Random) -> tuple[int, Edges, int, int]:
    path = [(i, i + 1) for i in range(size - 1)]
    return size, path + _edges(size, size // 4, rng), 0, size - 1


def count_components(n: int, edges: Edges) -> int:
    """Count the parts of a graph of n nodes between which there are no edges."""
    parent = list(range(n))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    parts = n
    for a, b in edges:
        a, b = root(a), root(b)
        if a != b:
            parent[a] = b
            parts -= 1
    return parts


def count_components_slow(n: int, edges: Edges) -> int:
    groups = [[i] for i in range(n)]
    for a, b in edges:
        group_a = next(g for g in groups if a in g)
        group_b = next(g for g in groups if b in g)
        if group_a is not group_b:
            groups.remove(group_b)
            group_a.extend(group_b)
    return len(groups)


def count_components_inputs(size: int, rng: random.Random) -> tuple[int, Edges]:
    return size, _edges(size, size // 2, rng)


def task_order(n: int, before: Edges) -> list[int]:
    """Order tasks 0 to n - 1 so that in each pair (a, b) a comes before b.

    Of the tasks that could come next the least comes. Return [] where there is no order.
    """
    after: list[list[int]] = [[] for _ in range(n)]
    waits = [0] * n
    for a, b in before:
        after[a].append(b)
        waits[b] += 1
    ready = [task for task in range(n) if waits[task] == 0]
    order = []
    while ready:
        task = heapq.heappop(ready)
        order.append(task)
        for other in after[task]:
            waits[other] -= 1
            if waits[other] == 0:
                heapq.heappush(ready, other)
    return order if len(order) == n else []


def task_order_slow(n: int, before: Edges) -> list[int]:
    order: list[int] = []
    while len(order) < n:
        found = False
        for task in range(n):
            if task in order:
                continue
            ok = True
            for a, b in before:
                if b == task and a not in order:
                    ok = False
            if ok:
                order.append(task)
                found = True
                break
        if not found:
            return []
    return order


def task_order_inputs(size: int, rng: random.Random) -> tuple[int, Edges]:
    place = rng.sample(range(size), size)
    pairs = [tuple(sorted(rng.sample(range(size), 2))) for _ in range(size)]
    return size, [(place[a], place[b]) for a, b in pairs]


def shortest_distances(n: int, roads: list[tuple[int, int, int]], start: int) -> list[int]:
    """Return the length of the shortest way from start to each of n places, -1 where there is none.

    Roads are (a, b, length), walked either way; lengths are positive.
    """
    neighbours: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for a, b, length in roads:
        neighbours[a].append((b, length))
        neighbours[b].append((a, length))
    distances = [-1] * n
    waiting = [(0, start)]
    while waiting:
        distance, place = heapq.heappop(waiting)
        if distances[place] >= 0:
            continue
        distances[place] = distance
        for other, length in neighbours[place]:
            if distances[other] < 0:
                heapq.heappush(waiting, (distance + length, other))
    return distances


def shortest_distances_slow(n: int, roads: list[tuple[int, int, int]], start: int) -> list[int]:
    infinity = 10**18
    distance = [infinity] * n
    distance[start] = 0
    changed = True
    done: list[int] = []
    while changed:
        changed = False
        nearest = None
        for place in range(n):
            known = distance[place] < infinity and place not in done
            if known and (nearest is None or distance[place] < distance[nearest]):
                nearest = place
        if nearest is not None:
            done.append(nearest)
            changed = True
            for a, b, length in roads:
                if a == nearest:
                    distance[b] = min(distance[b], distance[a] + length)
                if b == nearest:
                    distance[a] = min(distance[a], distance[b] + length)
    return [d if d < infinity else -1 for d in distance]


def shortest_distances_inputs(
    size: int, rng: random.Random
) -> tuple[int, list[tuple[int, int, int]], int]:
    roads = [(a, b, rng.randint(1, 99)) for a, b in _edges(size, 2 * size, rng)]
    return size, roads, rng.randrange(size)


def count_triangles(n: int, edges: Edges) -> int:
    """Count the groups of three nodes, of n, that are joined pairwise; edges may stand twice."""
    later: list[set[int]] = [set() for _ in range(n)]
    for a, b in edges:
        if a != b:
            later[min(a, b)].add(max(a, b))
    return sum(len(later[a] & later[b]) for a in range(n) for b in later[a])


def count_triangles_slow(n: int, edges: Edges) -> int:
    def joined(a: int, b: int) -> bool:
        return (a, b) in edges or (b, a) in edges

    count = 0
    for a, b, c in combinations(range(n), 3):
        if joined(a, b) and joined(b, c) and joined(a, c):
            count += 1
    return count


def count_triangles_inputs(size: int, rng: random.Random) -> tuple[int, Edges]:
    return size, _edges(size, 2 * size, rng)


def reachable_from(edges: Edges, start: int) -> list[int]:
    """Return the nodes that edges lead to from start, in any number of steps and start too, sorted.

    An edge (a, b) leads from a to b.
    """
    leads: dict[int, list[int]] = {}
    for a, b in edges:
        leads.setdefault(a, []).append(b)
    seen = {start}
    waiting = [start]
    while waiting:
        for node in leads.get(waiting.pop(), []):
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return sorted(seen)


def reachable_from_slow(edges: Edges, start: int) -> list[int]:
    reached = [start]
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            if a in reached and b not in reached:
                reached.append(b)
                changed = True
    return sorted(reached)


def reachable_from_inputs(size: int, rng: random.Random) -> tuple[Edges, int]:
    edges = [(i, i + 1) for i in range(size)] + _edges(size, size // 4, rng)
    rng.shuffle(edges)
    return edges, 0


def count_islands(grid: list[str]) -> int:
    """Count the islands of "#" cells; cells belong together where they share a side."""
    land = {(i, j) for i, row in enumerate(grid) for j, cell in enumerate(row) if cell == "#"}
    islands = 0
    while land:
        islands += 1
        waiting = [land.pop()]
        while waiting:
            i, j = waiting.pop()
            for cell in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if cell in land:
                    land.remove(cell)
                    waiting.append(cell)
    return islands


def count_islands_slow(grid: list[str]) -> int:
    visited: list[tuple[int, int]] = []
    count = 0
    for i in range(len(grid)):
        for j in range(len(grid[i])):
            if grid[i][j] == "#" and (i, j) not in visited:
                count += 1
                queue = [(i, j)]
                visited.append((i, j))
                while len(queue) > 0:
                    x, y = queue.pop(0)
                    for a, b in [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)]:
                        inside = 0 <= a < len(grid) and 0 <= b < len(grid[a])
                        if inside and grid[a][b] == "#" and (a, b) not in visited:
                            visited.append((a, b))
                            queue.append((a, b))
    return count


def count_islands_inputs(size: int, rng: random.Random) -> tuple[list[str]]:
    return (["".join(rng.choices(".#", k=size)) for _ in range(size)],)


def degrees(n: int, edges: Edges) -> list[int]:
    """For each of n nodes, return at how many ends of edges it stands."""
    counts = [0] * n
    for a, b in edges:
        counts[a] += 1
        counts[b] += 1
    return counts


def degrees_slow(n: int, edges: Edges) -> list[int]:
    result = []
    for node in range(n):
        degree = 0
        for edge in edges:
            if edge[0] == node:
                degree += 1
            if edge[1] == node:
                degree += 1
        result.append(degree)
    return result


def degrees_inputs(size: int, rng: random.Random) -> tuple[int, Edges]:
    return size, _edges(size, 2 * size, rng)


def common_friends(friends: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Return the pairs of people, each in the order of the dict, that have a friend in common."""
    sets = {name: set(those) for name, those in friends.items()}
    return [(a, b) for a, b in combinations(sets, 2) if not sets[a].isdisjoint(sets[b])]


def common_friends_slow(friends: dict[str, list[str]]) -> list[tuple[str, str]]:
    names = list(friends)
    result = []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            common = [f for f in friends[names[i]] if f in friends[names[j]]]
            if len(common) > 0:
                result.append((names[i], names[j]))
    return result


def common_friends_inputs(size: int, rng: random.Random) -> tuple[dict[str, list[str]]]:
    names = [f"p{i}" for i in range(4 * size)]
    return ({names[i]: rng.sample(names, 1 + size // 8) for i in range(size)},)
