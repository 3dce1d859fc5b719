//! A cluster serves every slot, moves them, and says where they are.

use tierkeep_test_servers::{RedisCluster, Reply};

#[test]
fn slots_move_with_their_keys() {
    let cluster = RedisCluster::start().unwrap();
    let slot = cluster.slot("{a}0").unwrap();
    let from = cluster.owner(slot).unwrap();
    let to = (from + 1) % 3;
    let ask = |node: usize, key: &str| {
        cluster.nodes()[node].client().unwrap().command(&["GET", key]).unwrap().text()
    };
    for key in ["{a}0", "{a}1", "{a}2"] {
        cluster.nodes()[from].command(&["SET", key, key]).unwrap();
    }
    assert!(ask(to, "{a}0").starts_with("MOVED"));

    let migration = cluster.begin_migration(slot, to).unwrap();
    assert_eq!(cluster.move_keys(migration, 2).unwrap(), 2);
    let answers: Vec<_> = ["{a}0", "{a}1", "{a}2"].map(|key| ask(from, key)).into();
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("ASK")).count(), 2, "{answers:?}");

    cluster.finish_migration(migration).unwrap();
    assert_eq!(cluster.owner(slot).unwrap(), to);
    assert_eq!(ask(to, "{a}1"), "{a}1");
    assert!(ask(from, "{a}1").starts_with("MOVED"));

    cluster.promote(3).unwrap();
    cluster.settle().unwrap();
    let owner = cluster.owner(0).unwrap();
    assert_eq!(owner, 3);
    assert_eq!(cluster.nodes()[0].info("role").unwrap(), "slave");
    assert!(matches!(cluster.nodes()[3].command(&["PING"]).unwrap(), Reply::Simple(_)));
}
