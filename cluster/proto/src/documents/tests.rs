mod behaviour;
mod faults;
mod site;
mod strangers;
