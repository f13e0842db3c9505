//! Bugs planted on purpose, so that tests see the simulation's checkers find them: a checker that cannot fail is worth nothing.
//!
//! Without the feature `planted-bugs`, which only tests ask for, [`is`] is a constant and nothing of them is in the program.

/// What a careless change might have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Acknowledges events when they go to the journal, not when they are on disk.
    AckBeforeCommit,
    /// Writes the cursor of a checkpoint in a transaction before that of its parts.
    CursorOutsideTransaction,
    /// Starts at the cursor of the checkpoint without the state that was saved there.
    ForgetCheckpoint,
    /// Takes every time stamp at its word.
    FutureStampMovesWatermark,
    /// Gives up old records without a receipt.
    DropWithoutRecord,
    /// Takes an event that is sent again for a new one.
    ForgetDuplicates,
    /// Keeps everything, whatever its quota.
    ForgetQuota,
    /// Gives each try to deliver a notification an identity of its own.
    NewKeyForEachTry,
    /// Says that the node is ready, whatever is wrong.
    AlwaysReady,
    /// Tells others of changes and records that are not on its own disk yet.
    ShipBeforeDurable,
    /// Goes on with the actor id of an earlier life in documents.
    ReuseDocumentActor,
    /// Takes a device back in because somebody who was long away still knows it.
    ResurrectDevice,
    /// Believes whoever says who they are.
    SkipIdentityCheck,
    /// Tells nobody of what a repair brought.
    ForgetToAnnounce,
    /// Takes a later epoch of a document in place of its own without what it alone knows.
    ForgetUnsentEdits,
    /// Gives another site whatever it asks for.
    ForgetTerms,
    /// The cloud confirms what a site delivers before it is on disk.
    ReceiptBeforeCommit,
    /// The cloud takes a revision of a pane for another share.
    CountRevisionTwice,
    /// The cloud applies what was said for another node before what it depends on.
    ApplyBeforeAfter,
    /// The cloud passes over the receipts of what a site gave up.
    ForgetDropRanges,
    /// A question to the cloud finds what was archived both there and where it came from.
    ServeBorderTwice,
    /// Only what is delivered counts on a line with bounds, not what goes over it besides.
    ForgetWhatIsCarried,
    /// How long a node can go on alone is told by what its cloud lacked when it was reached last.
    TellTimeAsOfLastContact,
    /// What is to be tried at one site goes to all.
    EverybodyIsCanary,
    /// The cloud's copies may forget what is archived before a manifest says so.
    ReleaseBeforeManifest,
}

impl Bug {
    pub const ALL: [Bug; 25] = [
        Bug::AckBeforeCommit,
        Bug::CursorOutsideTransaction,
        Bug::ForgetCheckpoint,
        Bug::FutureStampMovesWatermark,
        Bug::DropWithoutRecord,
        Bug::ForgetDuplicates,
        Bug::ForgetQuota,
        Bug::NewKeyForEachTry,
        Bug::AlwaysReady,
        Bug::ShipBeforeDurable,
        Bug::ReuseDocumentActor,
        Bug::ResurrectDevice,
        Bug::SkipIdentityCheck,
        Bug::ForgetToAnnounce,
        Bug::ForgetUnsentEdits,
        Bug::ForgetTerms,
        Bug::ReceiptBeforeCommit,
        Bug::CountRevisionTwice,
        Bug::ApplyBeforeAfter,
        Bug::ForgetDropRanges,
        Bug::ServeBorderTwice,
        Bug::ForgetWhatIsCarried,
        Bug::TellTimeAsOfLastContact,
        Bug::EverybodyIsCanary,
        Bug::ReleaseBeforeManifest,
    ];
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in everything that this thread runs from now on, or takes it away.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted here.
#[cfg(feature = "planted-bugs")]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Never, in a program for users.
#[cfg(not(feature = "planted-bugs"))]
pub const fn is(_: Bug) -> bool {
    false
}
