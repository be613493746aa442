//! Images and those who hold them.

use std::vec::Vec;

use super::fakes::{Bench, File, Plain};
use super::*;
use crate::policy::{BareName, Root, SearchPath};

const NAME: &str = r"\Device\V1\a";

fn open(bench: &Bench, name: &str, consumer: &str) -> Result<HandedOut<Plain>, Error> {
    bench.images.open(Which::Name(&units(name)), &units(consumer))
}

#[test]
fn replaced_file_goes_to_newcomers_and_holders_keep_theirs() {
    let bench = Bench::new(Policy::Unsigned);
    bench.stage(NAME, &mut File::new(1, b"old")).unwrap();
    let holder = open(&bench, NAME, "nic").unwrap();
    let mut replaced = File::new(1, b"newer");
    replaced.facts.identity.change_time = 2;
    bench.stage(NAME, &mut replaced).unwrap();
    assert_eq!(bench.images.len(), 1);
    assert_eq!(holder.bytes(), b"old");
    assert_eq!(open(&bench, NAME, "nic").unwrap().bytes(), b"newer");
    assert_eq!(bench.images.used_bytes(), 8);
    drop(holder);
    assert_eq!((bench.images.used_bytes(), bench.live_memories()), (5, 1));
}

#[test]
fn image_in_use_is_unstaged_only_by_who_says_so() {
    let bench = Bench::new(Policy::Unsigned);
    let id = bench.stage(NAME, &mut File::new(1, b"abc")).unwrap().image.id();
    let holder = open(&bench, NAME, "nic").unwrap();
    assert_eq!(bench.images.unstage(Which::Id(id), Unstage::Refuse), Err(Error::ImageInUse));
    let unstaged = bench.images.unstage(Which::Id(id), Unstage::Defer);
    assert_eq!(unstaged, Ok(Unstaged { id, size: 3, holders: 1 }));
    assert_eq!(open(&bench, NAME, "nic").err(), Some(Error::ImageNotFound));
    assert_eq!(bench.images.unstage(Which::Id(id), Unstage::Defer), Err(Error::ImageNotFound));
    assert_eq!(holder.bytes(), b"abc");
    assert_eq!(bench.live_memories(), 1);
    drop(holder);
    assert_eq!((bench.live_memories(), bench.images.used_bytes()), (0, 0));
}

#[test]
fn consumers_are_named_and_counted() {
    let bench = Bench::new(Policy::Unsigned);
    let image = bench.stage(NAME, &mut File::new(1, b"abc")).unwrap().image;
    let first = open(&bench, NAME, "e1000").unwrap();
    drop(open(&bench, NAME, "rtl8139").unwrap());
    let last = image.last_consumer().unwrap();
    assert_eq!((last.name(), last.open, last.times), (&*units("rtl8139"), 0, 1));
    let named: Vec<_> = (0..3).map_while(|n| image.consumer(n)).map(|c| (c.name().to_vec(), c.open)).collect();
    assert_eq!(named, [(units("e1000"), 1), (units("rtl8139"), 0)]);
    assert_eq!((image.holders(), bench.images.holders()), (1, 1));
    drop(first);
    assert_eq!(image.holders(), 0);
    let long = "x".repeat(MAX_CONSUMER_UNITS + 1);
    assert_eq!(open(&bench, NAME, &long).err(), Some(Error::ConsumerName));
    assert_eq!(image.holders(), 0);
}

#[test]
fn listing_goes_on_behind_its_cursor_whatever_happens_meanwhile() {
    let bench = Bench::new(Policy::Unsigned);
    for (id, name) in [r"\Device\V1\a", r"\Device\V1\b", r"\Device\V1\c"].iter().enumerate() {
        bench.stage(name, &mut File::new(id as u8, &[id as u8; 4])).unwrap();
    }
    let first = bench.images.next(ImageId(0)).unwrap();
    assert_eq!(first.name.units(), units(r"\Device\V1\a"));
    bench.images.unstage(Which::Id(first.id), Unstage::Refuse).unwrap();
    let second = bench.images.next(first.id).unwrap();
    assert_eq!((second.name.units(), second.size), (&*units(r"\Device\V1\b"), 4));
    assert!(matches!(second.state, ListedState::Staged(_)));
    let third = bench.images.next(second.id).unwrap();
    assert!(bench.images.next(third.id).is_none());
}

#[test]
fn close_takes_out_what_nobody_holds_and_refuses_the_rest() {
    let bench = Bench::new(Policy::Unsigned);
    bench.stage(NAME, &mut File::new(1, b"abc")).unwrap();
    bench.stage(r"\Device\V1\b", &mut File::new(2, b"defg")).unwrap();
    let holder = open(&bench, NAME, "nic").unwrap();
    bench.images.close();
    assert_eq!((bench.images.len(), bench.images.holders()), (1, 1));
    assert_eq!(bench.stage(NAME, &mut File::new(1, b"abc")).err().unwrap().error, Error::SessionEnded);
    assert_eq!(open(&bench, NAME, "nic").err(), Some(Error::SessionEnded));
    drop(holder);
    bench.images.close();
    assert!(bench.images.is_empty());
    assert_eq!(bench.live_memories(), 0);
}

#[test]
fn driver_is_given_the_image_of_the_best_root_and_waits_for_one_that_is_coming() {
    let bench = Bench::new(Policy::Unsigned);
    let mut path = SearchPath::new();
    for root in [r"\Device\V1\First", r"\Device\V1\Second"] {
        path.push(Root::from_normalized(&units(root)).unwrap()).unwrap();
    }
    let bare = units("a.rom");
    let open = || bench.images.open_named(&path, BareName::parse(&bare).unwrap(), &units("nic")).unwrap();
    assert!(matches!(open(), Named::Nothing));
    bench.stage(r"\Device\V1\Second\A.ROM", &mut File::new(2, b"second")).unwrap();
    let Named::Staged(second) = open() else { panic!("it is staged") };
    assert_eq!((second.bytes(), second.holders()), (&b"second"[..], 1));
    let (started, has_started) = std::sync::mpsc::channel();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let mut coming = File::new(1, b"first").before_read(move || {
        let _ = started.send(());
        let _ = gate.recv();
    });
    std::thread::scope(|scope| {
        let staging = scope.spawn(|| bench.stage(r"\Device\V1\First\a.rom", &mut coming).is_ok());
        has_started.recv().unwrap();
        assert!(matches!(open(), Named::UnderWay), "the better root is about to have one");
        drop(release);
        assert!(staging.join().unwrap());
    });
    let Named::Staged(first) = open() else { panic!("it is staged") };
    assert_eq!(first.bytes(), b"first");
    bench.images.close();
    assert_eq!(bench.images.open_named(&path, BareName::parse(&bare).unwrap(), &[]).err(), Some(Error::SessionEnded));
}

#[test]
fn who_staged_an_image_gets_it_even_if_it_is_unstaged_at_once() {
    let bench = Bench::new(Policy::Unsigned);
    let staged = bench.stage(NAME, &mut File::new(1, b"abc")).unwrap();
    bench.images.unstage(Which::Id(staged.image.id()), Unstage::Refuse).unwrap();
    let mine = bench.images.open_image(&staged.image, &units("nic")).unwrap();
    drop(staged);
    assert_eq!((mine.bytes(), mine.holders(), bench.images.len()), (&b"abc"[..], 1, 0));
    drop(mine);
    assert_eq!(bench.live_memories(), 0);
}
